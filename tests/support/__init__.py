"""Code that the tests share: servers, jobs, generated images and modules."""
