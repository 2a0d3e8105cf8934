"""What a finished run says: results, quality of its supernet, fleets."""
