"""Names of beamlabel's counters and distributions.

They are approximate: a runner that retries a bundle may count it twice. The manifest is exact.
"""

from __future__ import annotations

NAMESPACE = "beamlabel"

# WriteUnit
ROWS_WRITTEN = "rows_written"
FAILURES_WRITTEN = "failures_written"
BYTES_WRITTEN = "bytes_written"
WRITE_UNIT_MSEC = "write_unit_msec"

# Predict: times at which batches were done, in milliseconds since 1970; the minimum is the time of the first label.
PREDICTED_AT_MSEC = "predicted_at_msec"

# LoadImages
IMAGES_FETCHED = "images_fetched"
BYTES_FETCHED = "bytes_fetched"
FETCH_MSEC = "fetch_msec"
DECODE_MSEC = "decode_msec"
