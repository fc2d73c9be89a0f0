"""What is done about calls that raise, hang or kill their process, and about broken devices."""
