// Package demo shows a relay at work on one machine: for every transport two
// devices register, send each other messages, leave and come back, and lose
// their connection in the middle. Each row of the result is what was seen, not
// what was meant to happen.
package demo
