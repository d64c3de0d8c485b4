"""Saves the blocks of a local set-up: `python blocks/save_local.py`."""

from pydantic import SecretStr

from wtb_prefect import WtbCheckpointStore

NAME = "local"


def main() -> None:
    """Saves, or replaces, the block documents named `local`."""
    store = WtbCheckpointStore(database_url=SecretStr("sqlite:///.wtb/wtb-checkpoints.db"))
    store.save(NAME, overwrite=True)
    print(f"saved {WtbCheckpointStore.get_block_type_slug()}/{NAME}")


if __name__ == "__main__":
    main()
