#!/bin/sh
# Makes every password of compose.yaml, once: docker/.env, and docker/secrets/users.acl with hashes of the queue's.
# Letters and digits only, because they become parts of URLs. To rotate, remove both and see docs/operations.md.
set -eu
cd "$(dirname "$0")"
umask 077
if [ -e .env ] || [ -e secrets/users.acl ]; then
    echo "docker/.env or docker/secrets/users.acl is there already; nothing is changed." >&2
    exit 1
fi
password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

for name in POSTGRES OWNER LOADER READER ANALYST DAGSTER DAGSTER_READER; do
    echo "${name}_PASSWORD=$(password)" >> .env.new
done
mkdir -p secrets
cp users.acl.in secrets/users.acl.new
for user in admin gateway workers daemon web; do
    secret=$(password)
    hash=$(printf %s "$secret" | sha256sum | cut -d' ' -f1)
    echo "VALKEY_$(echo "$user" | tr '[:lower:]' '[:upper:]')_PASSWORD=$secret" >> .env.new
    sed "s/@$user@/$hash/" secrets/users.acl.new > secrets/users.acl.next
    mv secrets/users.acl.next secrets/users.acl.new
done
chmod 0644 secrets/users.acl.new # hashes; the server's account in the container reads it, and the folder is closed
mv secrets/users.acl.new secrets/users.acl
mv .env.new .env
echo "Wrote docker/.env and docker/secrets/users.acl."
