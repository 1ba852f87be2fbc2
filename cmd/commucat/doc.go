// Commucat is the relay, its operator's commands and its client in one program.
//
// Results go to standard output, everything else to standard error. Exit codes:
// 0 done, 1 it did not work, 2 wrong usage, 3 refused by the other side, 4 timed
// out, 78 configuration error.
package main
