package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"tandem/client"
)

func (a *app) device() *cobra.Command {
	return a.group("device", "device", `  tandem device create hub-1 press-4
  tandem device simulate hub-1`,
		a.deviceCreate(), a.deviceList(), a.deviceShow(), a.deviceDelete(), a.deviceImport(), a.deviceSimulate())
}

// service opens the hub that is the command's first argument.
func (a *app) service(c *cobra.Command, hub string) (*client.Client, *client.Service, error) {
	t, err := a.connect()
	if err != nil {
		return nil, nil, err
	}
	s, err := t.Service(c.Context(), hub)
	return t, s, err
}

func (a *app) deviceCreate() *cobra.Command {
	var disabled bool
	c := a.command("device.create", "create HUB DEVICE", cobra.ExactArgs(2), `  tandem device create hub-1 press-4`, func(c *cobra.Command, args []string) error {
		_, s, err := a.service(c, args[0])
		if err != nil {
			return err
		}
		d := client.Device{DeviceID: args[1], Status: "enabled"}
		if disabled {
			d.Status = "disabled"
		}
		if d, err = s.CreateDevice(c.Context(), d); err != nil {
			return err
		}
		return a.printDevice(s, d, d)
	})
	c.Flags().BoolVar(&disabled, "disabled", false, a.say("flag.disabled"))
	return c
}

func (a *app) printDevice(s *client.Service, d client.Device, raw any) error {
	return a.print(raw, func(w io.Writer) {
		row(w, a.say("column.device"), d.DeviceID)
		row(w, a.say("column.status"), dash(d.Status))
		row(w, "etag", dash(d.Etag))
		if d.Key() != "" {
			row(w, a.say("column.connection"), client.ConnectionString{HostName: s.Host(), DeviceID: d.DeviceID, SharedAccessKey: d.Key()})
		}
	})
}

func (a *app) deviceList() *cobra.Command {
	var top int
	c := a.command("device.list", "list HUB", cobra.ExactArgs(1), `  tandem device list hub-1 --top 20`, func(c *cobra.Command, args []string) error {
		_, s, err := a.service(c, args[0])
		if err != nil {
			return err
		}
		devices, raw, err := s.Devices(c.Context(), top)
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) {
			row(w, a.say("column.device"), a.say("column.status"), "etag")
			for _, d := range devices {
				row(w, d.DeviceID, d.Status, d.Etag)
			}
		})
	})
	c.Flags().IntVar(&top, "top", 1000, a.say("flag.top"))
	return c
}

func (a *app) deviceShow() *cobra.Command {
	return a.command("device.show", "show HUB DEVICE", cobra.ExactArgs(2), `  tandem device show hub-1 device-1`, func(c *cobra.Command, args []string) error {
		_, s, err := a.service(c, args[0])
		if err != nil {
			return err
		}
		d, raw, err := s.Device(c.Context(), args[1])
		if err != nil {
			return err
		}
		return a.printDevice(s, d, json.RawMessage(raw))
	})
}

func (a *app) deviceDelete() *cobra.Command {
	var yes bool
	c := a.command("device.delete", "delete HUB DEVICE", cobra.ExactArgs(2), `  tandem device delete hub-1 press-4 --yes`, func(c *cobra.Command, args []string) error {
		if err := a.confirm(a.say("device.delete.ask", args[1]), args[1], yes); err != nil {
			return err
		}
		_, s, err := a.service(c, args[0])
		if err != nil {
			return err
		}
		return s.DeleteDevice(c.Context(), args[1])
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, a.say("flag.yes"))
	return c
}
