# Kerrighed over MPI as a Spack package (package API v2, Spack 1.0 and later):
#   spack repo add spack/spack_repo/kerrighed
#   spack install kerrighed@main            # this checkout's main branch
#   spack install --test=root kerrighed     # with the unit tests
# SPDX-License-Identifier: GPL-2.0-or-later
import os

from spack_repo.builtin.build_systems.cmake import CMakePackage

from spack.package import *

CHECKOUT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


class Kerrighed(CMakePackage):
    """A single system image over the nodes of a batch job, in user space: an unmodified program's
    processes run on all nodes as if on one machine."""

    git = f"file://{CHECKOUT}"

    license("GPL-2.0-or-later")

    version("main", branch="main")

    variant("examples", default=False, description="Build the example programs")
    variant("werror", default=False, description="Treat compiler warnings as errors")
    variant(
        "sanitize",
        default="none",
        values=("none", "address,undefined", "thread"),
        multi=False,
        description="Sanitizers for every target, for developers",
    )

    depends_on("c", type="build")
    depends_on("cxx", type="build")

    generator("ninja")
    depends_on("cmake@3.22:", type="build")
    depends_on("pkgconfig", type="build")

    depends_on("boost@1.74: +program_options")
    depends_on("fmt@9:")
    depends_on("hdf5@1.10: +threadsafe~mpi")
    depends_on("hwloc@2:")
    depends_on("libfabric@1.17: fabrics=tcp,rxm,shm")
    depends_on("libfuse@3.12:")
    depends_on("mpi@3:")
    depends_on("nlohmann-json@3.11:")
    depends_on("xxhash@0.8:")
    depends_on("zstd@1.4:")

    depends_on("googletest@1.12:", type="test")
    depends_on("python@3.9:", type="test")

    conflicts("platform=darwin", msg="builds on interfaces of the Linux kernel")
    conflicts("platform=windows", msg="builds on interfaces of the Linux kernel")
    conflicts("%gcc@:11", msg="needs C++20")

    def cmake_args(self):
        sanitize = self.spec.variants["sanitize"].value
        return [
            self.define("KRG_BUILD_TESTS", self.run_tests),
            self.define_from_variant("KRG_BUILD_EXAMPLES", "examples"),
            self.define_from_variant("KRG_WERROR", "werror"),
            self.define("KRG_SANITIZE", "" if sanitize == "none" else sanitize),
        ]

    def check(self):
        with working_dir(self.build_directory):
            ctest = which("ctest", required=True)
            ctest("-L", "^unit$", "-LE", "^style$", "--output-on-failure")
