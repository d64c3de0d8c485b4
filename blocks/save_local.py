"""Saves the blocks of a local set-up: `python blocks/save_local.py`."""

from pydantic import SecretStr

from wtb_prefect import WtbCheckpointStore, WtbFileTracker, WtbWorkspace

NAME = "local"


def main() -> None:
    """Saves, or replaces, the block documents named `local`."""
    blocks = (
        WtbCheckpointStore(database_url=SecretStr("sqlite:///.wtb/wtb-checkpoints.db")),
        WtbFileTracker(blob_folder=".wtb/outputs/blobs"),
        WtbWorkspace(folder=".wtb/outputs/workspaces"),
    )
    for block in blocks:
        block.save(NAME, overwrite=True)
        print(f"saved {block.get_block_type_slug()}/{NAME}")


if __name__ == "__main__":
    main()
