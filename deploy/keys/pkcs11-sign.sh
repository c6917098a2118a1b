#!/bin/sh
# A command for keys/signers.toml (docs/keys.md): signs with an ECDSA P-256 key in a PKCS#11 token.
#
#   pkcs11-sign.sh KEY_LABEL < message > signature
#
# PKCS11_PIN is the user's PIN, PKCS11_TOKEN the token's label, PKCS11_MODULE the vendor's library; the defaults are those of
# SoftHSM on Debian. The key never leaves the token; what goes there is the SHA-256 of the message.
set -eu
: "${PKCS11_PIN:?PKCS11_PIN is not set}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
openssl dgst -sha256 -binary -out "$work/digest"
pkcs11-tool --module "${PKCS11_MODULE:-/usr/lib/softhsm/libsofthsm2.so}" --token-label "${PKCS11_TOKEN:-colibri}" \
    --login --pin env:PKCS11_PIN --sign --mechanism ECDSA --signature-format openssl --label "$1" \
    --input-file "$work/digest" --output-file "$work/signature" >&2
cat "$work/signature"
