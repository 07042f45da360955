"""`rtc doctor`: what would keep the server from running well on this machine, with this configuration."""
