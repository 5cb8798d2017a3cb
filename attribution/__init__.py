"""Who spent it: price book, named questions, API, page."""
