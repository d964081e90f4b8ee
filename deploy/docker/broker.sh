#!/bin/sh
# Starts RabbitMQ. The administrator's password is drawn at the first start and kept in the volume /admin, so that it is
# in no image and in no compose file; RabbitMQ takes it while it has no data yet.
set -eu
umask 077
mkdir -p /tmp/rabbitmq/generated /tmp/rabbitmq/log
if [ ! -s /admin/password ]; then
    head -c 24 /dev/urandom | base64 | tr '+/' '-_' > /admin/password.new
    mv /admin/password.new /admin/password
fi
for more in /etc/rabbitmq/conf.d/*.conf; do
    [ ! -e "$more" ] || cp "$more" /tmp/rabbitmq/
done
printf 'default_user = admin\ndefault_pass = %s\n' "$(cat /admin/password)" > /tmp/rabbitmq/administrator.conf
# Not /usr/sbin/rabbitmq-server: that one writes a log of its own beside what goes to the container's.
exec /usr/lib/rabbitmq/bin/rabbitmq-server
