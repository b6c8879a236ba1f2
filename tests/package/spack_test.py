#!/usr/bin/env python3
"""The Spack recipe against our CMake files, without Spack: the recipe is run with stand-ins for the
directives it uses, and what it passes to CMake must be exactly the options that CMakeLists.txt has.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import re
import runpy
import sys
import types
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
RECIPE = REPOSITORY / "spack/package.py"


class Recorder:
    """Stands in for spack.package: remembers each directive's arguments."""

    DIRECTIVES = ("license", "version", "variant", "depends_on", "generator", "conflicts")

    def __init__(self):
        self.calls = {name: [] for name in self.DIRECTIVES}

    def directive(self, name):
        return lambda *args, **kwargs: self.calls[name].append((args, kwargs))


class CMakePackage:
    """Stands in for Spack's class: names and values of the definitions instead of -D options."""

    run_tests = True

    def __init__(self, variants):
        self.spec = types.SimpleNamespace(
            variants={name: types.SimpleNamespace(value=value) for name, value in variants.items()})

    def define(self, name, value):
        return name, value

    def define_from_variant(self, name, variant):
        return name, self.spec.variants[variant].value


def load_recipe():
    recorder = Recorder()
    spack_package = types.ModuleType("spack.package")
    for name in Recorder.DIRECTIVES:
        setattr(spack_package, name, recorder.directive(name))
    cmake = types.ModuleType("spack_repo.builtin.build_systems.cmake")
    cmake.CMakePackage = CMakePackage
    modules = {"spack": types.ModuleType("spack"), "spack.package": spack_package, cmake.__name__: cmake}
    for name in ("spack_repo", "spack_repo.builtin", "spack_repo.builtin.build_systems"):
        modules[name] = types.ModuleType(name)
    sys.modules.update(modules)
    return runpy.run_path(str(RECIPE))["Kerrighed"], recorder.calls


def cmake_options():
    text = (REPOSITORY / "CMakeLists.txt").read_text()
    return set(re.findall(r"^option\((KRG_\w+)", text, re.MULTILINE)) | set(
        re.findall(r"^set\((KRG_\w+) .*CACHE", text, re.MULTILINE))


class SpackRecipe(unittest.TestCase):
    def setUp(self):
        self.package, self.calls = load_recipe()
        self.defaults = {args[0]: kwargs["default"] for args, kwargs in self.calls["variant"]}

    def test_passes_exactly_the_options_that_cmake_has(self):
        passed = dict(self.package(self.defaults).cmake_args())
        self.assertEqual(set(passed), cmake_options())
        self.assertEqual(passed["KRG_SANITIZE"], "")

    def test_variants_reach_cmake(self):
        passed = dict(self.package({**self.defaults, "examples": True, "sanitize": "thread"}).cmake_args())
        self.assertIs(passed["KRG_BUILD_EXAMPLES"], True)
        self.assertEqual(passed["KRG_SANITIZE"], "thread")

    def test_every_library_that_cmake_looks_for_is_a_dependency(self):
        spack_names = {"fmt": "fmt", "nlohmann_json": "nlohmann-json", "Boost": "boost", "MPI": "mpi",
                       "GTest": "googletest", "PkgConfig": "pkgconfig", "Threads": None,
                       "libfabric": "libfabric", "hwloc": "hwloc", "fuse3": "libfuse", "hdf5": "hdf5", "xxhash": "xxhash", "zstd": "zstd"}
        text = (REPOSITORY / "cmake/KrgDependencies.cmake").read_text()
        looked_for = re.findall(r"(?:find_package|pkg_check_modules|pkg_search_module)\((\w+)", text)
        self.assertTrue(looked_for)
        dependencies = {re.split(r"[@ +]", args[0])[0] for args, _ in self.calls["depends_on"]}
        for name in looked_for:
            self.assertIn(name, spack_names, "not known to this test")
            if spack_names[name]:
                self.assertIn(spack_names[name], dependencies)

    def test_languages_are_dependencies(self):
        dependencies = {args[0] for args, _ in self.calls["depends_on"]}
        self.assertLessEqual({"c", "cxx"}, dependencies)

    def test_repository_entry_is_the_recipe(self):
        entry = REPOSITORY / "spack/spack_repo/kerrighed/packages/kerrighed/package.py"
        self.assertEqual(entry.resolve(), RECIPE)


if __name__ == "__main__":
    unittest.main()
