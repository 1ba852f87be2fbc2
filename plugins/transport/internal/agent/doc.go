// Package agent is what transports share whose bytes another program carries, such as
// tor or obfs4proxy: the relay's end of what that program connects, its life, and a
// plugin whose client half keeps such a program.
package agent
