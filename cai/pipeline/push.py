"""Put an export of a run on the Hugging Face hub, its card included, as one commit.

Left out on purpose: tokens, which the hub's own client finds (`hf auth login`, HF_TOKEN), and changing what is pushed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cai.core.errors import Mistake
from cai.core.plugins import suggest
from cai.runs.folder import Run

REPO = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


@dataclass(frozen=True, slots=True)
class ExportPackage:
    """What would be pushed, and where to."""

    folder: Path
    repo: str
    files: tuple[tuple[str, int], ...]
    """Names and bytes, in order."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(size for _, size in self.files)


def pack(run: Run, format: str, repo: str) -> ExportPackage:
    """The package of one export. Raises Mistake where there is none, or the repository's name is no name."""
    if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise Mistake(repo, "is no name of a repository", "use OWNER/NAME")
    folder = run.finished / "export" / format.replace(":", ".")
    if not (folder / "README.md").exists():
        there = sorted(path.name for path in (run.path / "export").glob("*") if (path / "README.md").exists())
        fix = suggest(format, there) if there else f"make it: cai export {run.path} {format}"
        raise Mistake(str(folder), "there is no such export", fix)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return ExportPackage(folder, repo, tuple((str(path.relative_to(folder)), path.stat().st_size) for path in files))


def push_export(package: ExportPackage, *, private: bool, message: str) -> str:
    """Upload it; the address of the commit. Raises Mistake with the hub's own words."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    hub = HfApi(library_name="cai")
    try:
        repo = hub.create_repo(package.repo, repo_type="dataset", private=private, exist_ok=True).repo_id
        done = hub.upload_folder(
            repo_id=repo, repo_type="dataset", folder_path=package.folder, commit_message=message,
            delete_patterns=["*.parquet", "*.jsonl"],
        )  # fmt: skip
    except Exception as error:  # the hub's client raises a dozen unrelated kinds; each means: not pushed
        what = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        fix = "log in with `hf auth login`, or set HF_TOKEN; nothing is half there: a push is one commit"
        raise Mistake(
            package.repo, f"was not pushed: {what[:200]}", fix
        ) from None  # its chain holds the request's headers
    return str(done.commit_url)
