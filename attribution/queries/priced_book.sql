-- Which models, as spans name them, have prices of a book in table `prices`. Parameter: book.
SELECT DISTINCT provider, request_model, response_model, service_tier
FROM prices
WHERE book = {book:String}
