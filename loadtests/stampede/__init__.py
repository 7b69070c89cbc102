"""What `cached` and `lock` hold back when many processes want one key at once, counted outside."""
