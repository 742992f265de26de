"""What on this host keeps subscribers out, or will: one check a file, each with what mends it."""
