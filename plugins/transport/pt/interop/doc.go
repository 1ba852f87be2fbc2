// Package interop runs webtunnel, both of its programs as they are, under the transport
// plugin. They are built here, so that what they need stays out of the project's module;
// the test itself is the plugin's own (TestWebtunnel).
package interop
