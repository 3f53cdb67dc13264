"""What `classify` is going to take, beside what walks over some sites did take."""
