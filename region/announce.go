package region

import (
	"context"
	"encoding/json"
	"time"

	"tandem"
	"tandem/directory"
)

// Site is what a node says of itself in the directory under region/<region>/<node>, for people and for clients that look
// for another address.
type Site struct {
	Region      tandem.RegionName  `json:"region"`
	Node        tandem.NodeName    `json:"node"`
	Incarnation tandem.Incarnation `json:"incarnation"`
	Listen      string             `json:"listen"`
	Ports       Ports              `json:"ports"`
	Started     time.Time          `json:"started"`
}

// announce keeps this node's Site in the directory as it is, until ctx ends.
func (n *node) announce(ctx context.Context) error {
	started := n.clock.Now().UTC()
	var said tandem.Incarnation
	for {
		if now := n.lease.Incarnation(); now != said {
			value, err := json.Marshal(Site{n.c.Region, n.c.Node, now, n.c.Listen, n.c.Ports, started})
			if err != nil {
				return err
			}
			_, err = n.directory.Commit(ctx, directory.Txn{
				Then: []directory.Change{{Key: directory.RegionKey(n.c.Region, n.c.Node), Value: value}},
			})
			if err == nil {
				said = now
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
