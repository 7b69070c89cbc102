"""What `cached` and `lock` prevent when many processes ask for one key, counted from outside."""
