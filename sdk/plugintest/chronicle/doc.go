// Package chronicle checks what a set of devices saw of a relay against what it
// promises: every message whose sender got an acknowledgement is shown to its
// recipient, none is shown twice, none is shown that was not sent, and what one sender
// sent to one recipient is shown in the order of sending.
//
// A test writes down every event with a [Log] while faults happen, waits until all is
// quiet, and asks [Check] for what went wrong. A message is named by sender, recipient
// and a number that grows by one with each message of that pair, from 0.
package chronicle
