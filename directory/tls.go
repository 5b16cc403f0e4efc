package directory

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"

	"tandem"
)

// TLSFiles name a certificate, its key and the authority that both sides trust, as PEM files. The certificate is used as
// server and as client, so it needs both usages; it is read anew for each connection, so that it can be renewed in place.
type TLSFiles struct {
	Cert, Key, CA string
}

// Client is the configuration with which these files call a member. Invalid when the authority's file can't be read.
func (f TLSFiles) Client() (*tls.Config, error) {
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(f.CA)
	if err == nil && !roots.AppendCertsFromPEM(pem) {
		err = errors.New("no certificate in it")
	}
	if err != nil {
		return nil, &tandem.Error{Op: "read the sites' authority", Kind: tandem.Invalid, On: f.CA, Err: err}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			return &pair, err
		},
	}, nil
}
