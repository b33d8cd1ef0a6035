"""What takes long: durable jobs that purge, clone, count and look after folders."""
