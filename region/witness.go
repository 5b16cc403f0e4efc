package region

import (
	"context"
	"log/slog"

	"tandem/directory"
)

// RunDirectory is the directory member of a site, until ctx ends. It runs in a process of its own, so that what a node
// does to its cores and its memory does not cost the directory its elections.
func RunDirectory(ctx context.Context, c Config, logger *slog.Logger) error {
	member, err := directory.OpenMember(ctx, directory.MemberOptions{
		Name: c.Directory.Name, DataDir: c.DataDir + "/directory",
		PeerURL: c.Directory.PeerAdvertise, ListenPeerURL: "https://" + c.Directory.PeerListen,
		ClientURL: "https://" + c.Directory.ClientListen, ListenClientURL: "https://" + c.Directory.ClientListen,
		InitialCluster: c.Directory.Initial, New: true, TLS: c.siteTLS(), Logger: logger,
	})
	if err != nil {
		return err
	}
	return member.Run(ctx)
}

// RunWitness is the third site: a directory member and nothing else.
func RunWitness(ctx context.Context, c Config, logger *slog.Logger) error {
	return RunDirectory(ctx, c, logger)
}

func (c *Config) siteTLS() directory.TLSFiles {
	return directory.TLSFiles{CA: c.CA, Cert: c.Cert, Key: c.Key}
}
