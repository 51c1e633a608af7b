"""What every reader needs: options and result, headers, colour profiles, modes, and the list of variants."""
