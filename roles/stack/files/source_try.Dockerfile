# Tests that the base images and a package of each language can be fetched.
ARG PYTHON_IMAGE
ARG NODE_IMAGE
ARG NGINX_IMAGE

FROM ${PYTHON_IMAGE} AS python
RUN python3 -m venv /tmp/pip && /tmp/pip/bin/pip download --quiet --retries 0 --no-deps --dest /tmp/python wheel

FROM ${NODE_IMAGE} AS node
RUN npm view --fetch-retries 0 npm version > /tmp/node

FROM ${NGINX_IMAGE}
COPY --from=python /tmp/python /tmp/python
COPY --from=node /tmp/node /tmp/node
