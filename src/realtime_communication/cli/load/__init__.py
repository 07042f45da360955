"""What `rtc bench` is made of: where to connect, as whom, the compiled generator, and what people get to see."""
