"""The blobs of Azure whose names begin with a prefix.

Beam's file system would request pages forever if the service repeated a page marker.
"""

from __future__ import annotations

from typing import Any

from beamlabel.transforms.storage.buckets.azure_ranges import client
from beamlabel.transforms.storage.listing.page_tokens import PageTokens
from beamlabel.transforms.storage.listing.stored_file import StoredFile


def list_blobs(prefix: str, options: Any) -> list[StoredFile]:
    """Lists blobs in the order of their names.

    Args:
      prefix: ``azfs://account/container/name``; the name may be empty or partial.
      options: Beam's options for reaching the service.

    Raises:
      azure.core.exceptions.AzureError: The service answered with an error.
      OSError: The service repeated a page marker.
      ValueError: The URI is invalid.
    """
    from apache_beam.io.azure.blobstorageio import parse_azfs_path

    account, container, name = parse_azfs_path(prefix, blob_optional=True, get_account=True)
    pages = client(options).get_container_client(container).list_blobs(name_starts_with=name).by_page()
    tokens, found = PageTokens(prefix), list[StoredFile]()
    for page in pages:
        found += (
            StoredFile(
                f"azfs://{account}/{container}/{blob.name}", blob.size, str(blob.last_modified.timestamp())
            )
            for blob in page
        )
        # Azure's last page has an empty marker.
        tokens.add(pages.continuation_token or None)
    return found
