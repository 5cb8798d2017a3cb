"""What records come to: figures with what carries them, and how runs compare."""
