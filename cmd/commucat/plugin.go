package main

import "github.com/spf13/cobra"

func (a *app) pluginCommand() *cobra.Command {
	return group("plugin", "Plugins that run as processes of their own", a.pluginListCommand(), a.pluginDescribeCommand(), a.pluginAddCommand(), a.pluginVerifyCommand(), a.pluginUpgradeCommand(), a.pluginRemoveCommand(),
		a.pluginNewCommand(), a.pluginCheckCommand())
}
