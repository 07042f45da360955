#!/bin/sh
# rtc with secrets from files: JWT_SECRET_FILE=/run/secrets/jwt_secret puts what is in that file into JWT_SECRET.
set -eu
for name in JWT_SECRET REDIS_URL REDIS_PASSWORD WEBHOOK_SECRET; do
    eval "file=\${${name}_FILE:-}"
    if [ -n "$file" ]; then
        value="$(cat -- "$file")"
        export "$name=$value"
        unset "${name}_FILE"
    fi
done
unset name file value
exec rtc "$@"
