// Package memory keeps everything in this process. Its volatile half is the
// relay's default: routes with fencing, presence, a cache, rate limits and a bus
// for one node, each bounded and evicting what ends soonest. Its durable half is
// complete but forgets at the end of the process: it is for tests and
// demonstrations.
package memory
