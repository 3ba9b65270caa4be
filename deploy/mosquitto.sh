#!/bin/sh
# Write the password file from the environment, then become the broker.
set -eu
umask 077
file=/run/mosquitto/passwords
printf 'cloud:%s\ngw-north:%s\ngw-south:%s\nsensors:%s\n' \
  "$CLOUD_PASSWORD" "$GW_NORTH_PASSWORD" "$GW_SOUTH_PASSWORD" "$SENSORS_PASSWORD" >"$file"
mosquitto_passwd -U "$file"
exec mosquitto -c /mosquitto/config/mosquitto.conf
