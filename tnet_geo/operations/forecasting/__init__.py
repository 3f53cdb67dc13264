"""What walks are going to take, by arithmetic over some sites: tiles, requests, bytes."""
