package main

import (
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set when a release is built (-ldflags "-X main.release=…").
var release = "development"

func (a *app) version() *cobra.Command {
	return a.command("version", "version", cobra.NoArgs, `  tandem version --output json`, func(*cobra.Command, []string) error {
		v := map[string]string{"version": release, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" || s.Key == "vcs.time" || s.Key == "vcs.modified" {
					v[s.Key[len("vcs."):]] = s.Value
				}
			}
		}
		return a.print(v, func(w io.Writer) { row(w, "tandem "+release, v["revision"], v["go"], v["platform"]) })
	})
}

func (a *app) completion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	c := a.command("completion", "completion SHELL", cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), `  source <(tandem completion bash)
  tandem completion zsh > "${fpath[1]}/_tandem"`, func(c *cobra.Command, args []string) error {
		switch args[0] {
		case "bash":
			return c.Root().GenBashCompletionV2(a.out, true)
		case "zsh":
			return c.Root().GenZshCompletion(a.out)
		case "fish":
			return c.Root().GenFishCompletion(a.out, true)
		}
		return c.Root().GenPowerShellCompletionWithDesc(a.out)
	})
	c.ValidArgs = shells
	return c
}
