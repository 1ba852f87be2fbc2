// Package bench is the load generator behind "commucat bench": it starts a relay
// as a process of its own for each case, drives it with sdk/client over a real
// transport, and reports rates, percentiles and the CPU time of server and
// generator apart.
//
// Every case is bounded in time and count. Figures are what both together reach
// on one machine; the server's CPU per message says what the server alone costs.
package bench
