"""pptpd's configuration (pptpd.conf, pppd's options, chap-secrets) as ours."""
