"""What the tests share: servers, jobs, made images and modules."""
