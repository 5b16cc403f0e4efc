package region

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tandem"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// leafLife keeps within what Apple's clients accept of a private authority (825 days) and browsers like (398 days).
	leafLife = 397 * 24 * time.Hour
	// renewBefore is the rest of a life in which a certificate is made anew at start.
	renewBefore = 60 * 24 * time.Hour
)

// An Authority is an installation's own certificate authority (ECDSA P-256). Its key stays in the directory it was
// opened from.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// OpenAuthority reads ca.pem and ca.key in dir, or makes them, with a life of ten years from now. What it writes is
// complete or absent, mode 0600.
func OpenAuthority(dir, installation string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &tandem.Error{Op: "make certificates", On: dir, Err: err}
	}
	a := &Authority{dir: dir}
	cert, key, err := readPair(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"))
	if err == nil {
		a.cert, a.key = cert, key
		if now.After(cert.NotAfter) {
			return nil, &tandem.Error{Op: "open the certificate authority", Kind: tandem.Damaged, On: dir,
				Err: errors.New("it has expired"), Hint: "move its directory away; a new one is made, which clients have to trust anew"}
		}
		return a, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, &tandem.Error{Op: "open the certificate authority", Kind: tandem.Damaged, On: dir, Err: err}
	}
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "Tandem " + installation, Organization: []string{"Tandem"}},
		NotAfter: now.Add(authorityLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.cert, a.key, err = a.make(template, "ca", now)
	return a, err
}

// File is the authority's certificate as a PEM file: what clients trust.
func (a *Authority) File() string { return filepath.Join(a.dir, "ca.pem") }

// Site returns the files of a certificate with which a site proves itself to the others, as server and as client. Hosts
// are its names and addresses. A certificate that still fits is kept.
func (a *Authority) Site(name string, hosts []string, now time.Time) (certFile, keyFile string, err error) {
	return a.leaf("site-"+name, hosts, now, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// Door returns the files of the certificate that devices and operators see. Hosts are every name and address they may
// use (specs/clients.md §1): localhost, 127.0.0.1, ::1, the regions' addresses, "*.<domain>" and each hub's own name.
// A certificate that still fits is kept.
func (a *Authority) Door(hosts []string, now time.Time) (certFile, keyFile string, err error) {
	return a.leaf("door", hosts, now, x509.ExtKeyUsageServerAuth)
}

func (a *Authority) leaf(name string, hosts []string, now time.Time, use ...x509.ExtKeyUsage) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: name, Organization: []string{"Tandem"}},
		NotAfter: now.Add(leafLife), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: use, BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if old, _, err := readPair(certFile, keyFile); err == nil && a.stillFits(old, template, now) {
		return certFile, keyFile, nil
	}
	_, _, err = a.make(template, name, now)
	return certFile, keyFile, err
}

func (a *Authority) stillFits(old, wanted *x509.Certificate, now time.Time) bool {
	if old.CheckSignatureFrom(a.cert) != nil || now.Before(old.NotBefore) || now.Add(renewBefore).After(old.NotAfter) {
		return false
	}
	for _, name := range wanted.DNSNames {
		if !slices.Contains(old.DNSNames, name) {
			return false
		}
	}
	for _, ip := range wanted.IPAddresses {
		if !slices.ContainsFunc(old.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// make signs template with the authority (or with itself when there is none yet) and writes both files.
func (a *Authority) make(template *x509.Certificate, name string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	wrap := func(err error) error { return &tandem.Error{Op: "make a certificate", On: name, Err: err} }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, wrap(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, wrap(err)
	}
	template.SerialNumber, template.NotBefore = serial, now.Add(-time.Hour) // clients' clocks may be behind
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, wrap(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, wrap(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, wrap(err)
	}
	// The key first: a certificate without its key would look like damage, a key without certificate is made anew.
	if err := writeFile(filepath.Join(a.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return nil, nil, wrap(err)
	}
	if err := writeFile(filepath.Join(a.dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return nil, nil, wrap(err)
	}
	return cert, key, nil
}

// readPair reads a certificate and its key; the error is fs.ErrNotExist when the certificate is absent.
func readPair(certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	der, err := readPEM(certFile, "CERTIFICATE")
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	if der, err = readPEM(keyFile, "PRIVATE KEY"); err != nil {
		return nil, nil, errors.New(err.Error()) // a key that is gone is damage, not absence
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New(filepath.Base(keyFile) + " does not belong to " + filepath.Base(certFile))
	}
	return cert, key, nil
}

func readPEM(file, kind string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil || block.Type != kind {
		return nil, errors.New(filepath.Base(file) + " is not a PEM " + kind)
	}
	return block.Bytes, nil
}

// writeFile puts text in place whole, mode 0600.
func writeFile(file string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(text); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
