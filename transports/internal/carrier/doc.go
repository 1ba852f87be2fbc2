// Package carrier brings HTTP requests of the client halves to the relay over
// TLS connections whose hello looks like a browser's.
package carrier
