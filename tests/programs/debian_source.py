"""The source of a Debian package, fetched with apt-get as a user of this machine would.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import subprocess

SOURCES = ("deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
           "http://deb.debian.org/debian bookworm main\n")


def fetch(package, folder):
    """Unpacks the source of `package` into `folder`; returns its directory, or raises OSError with the reason."""
    folder = pathlib.Path(folder)
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "sources.list").write_text(SOURCES)
    # Lists and cache of its own: the machine's apt is left as it is.
    apt = ["apt-get", "-o", f"Dir::Etc::SourceList={folder}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
           "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache",
           "-o", "APT::Sandbox::User=root", "-q"]
    for arguments in (["update"], ["source", "--only-source", package]):
        result = subprocess.run(apt + arguments, cwd=folder, capture_output=True, text=True, timeout=120,
                                check=False)
        if result.returncode != 0:
            raise OSError(f"apt-get {arguments[0]}: {result.stderr.strip()[-300:]}")
    found = [path for path in folder.glob(f"{package}-*") if path.is_dir()]
    if len(found) != 1:
        raise OSError(f"the source of {package} did not unpack into one directory")
    return found[0]
