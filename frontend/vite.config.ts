import { fileURLToPath } from 'node:url'
import react from '@vitejs/plugin-react'
import { defineConfig } from 'vitest/config'

// PREFIX=URL, separated by spaces: docker-compose.dev.yml says it.
const routes = (process.env.API_ROUTES ?? '').split(' ').filter(Boolean)

// index.html carries the release, not the bundle: an unchanged front end keeps its file names from one
// release to the next, so browsers keep their cache and either colour can serve the other's page.
process.env.VITE_RELEASE ??= 'development'

export default defineConfig({
  plugins: [react()],
  resolve: { alias: { '~': fileURLToPath(new URL('./src', import.meta.url)) } },
  server: {
    host: '0.0.0.0',
    port: 5173,
    strictPort: true,
    // Docker Desktop's mounts carry no change events from macOS and Windows; there, set DEV_POLLING=true.
    watch: process.env.DEV_POLLING === 'true' ? { usePolling: true, interval: 300 } : {},
    proxy: Object.fromEntries(
      routes.map((route) => {
        const [prefix = '', target = ''] = route.split('=')
        return [`${prefix}/`, { target, changeOrigin: false }]
      }),
    ),
  },
  build: {
    // The content security policy allows no data: scripts and no inline code, so nothing is inlined.
    assetsInlineLimit: 0,
    modulePreload: false,
    target: 'es2022',
  },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.{ts,tsx}'],
    setupFiles: ['src/testing/setup.ts'],
    // One page for all files: making one each took longer than the tests.
    isolate: false,
    testTimeout: 20_000,
    restoreMocks: true,
    unstubGlobals: true,
  },
})
