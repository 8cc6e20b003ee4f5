"""Uploads a file by tus with the public Python client, which retries by itself; or with the public JavaScript client, if its directory is given: ``tus_client.py URL TOKEN FILE SHARE PATH PART_BYTES``.

A program, so that what it does to its memory and to its connections is its own affair.
"""

from __future__ import annotations

import sys

from tusclient.client import TusClient

RETRIES = 300
RETRY_S = 0.2


def main(url: str, token: str, file: str, share: str, path: str, part_bytes: str) -> None:
    client = TusClient(url, headers={"Authorization": f"Bearer {token}"})
    uploader = client.uploader(
        file_path=file,
        chunk_size=int(part_bytes),
        metadata={"share": share, "path": path},
        retries=RETRIES,
        retry_delay=RETRY_S,  # type: ignore[arg-type]
        upload_checksum=True,
    )
    uploader.upload()


if __name__ == "__main__":
    main(*sys.argv[1:])
