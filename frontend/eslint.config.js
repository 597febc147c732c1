import js from '@eslint/js'
import jsxA11y from 'eslint-plugin-jsx-a11y'
import reactHooks from 'eslint-plugin-react-hooks'
import globals from 'globals'
import tseslint from 'typescript-eslint'

/** A layer may import what lies below it, and a feature never imports another feature. */
function layer(files, forbidden, message) {
  return {
    files: [files],
    rules: { 'no-restricted-imports': ['error', { patterns: [{ group: forbidden, message }] }] },
  }
}

export default tseslint.config(
  { ignores: ['dist', 'node_modules', 'src/lib/api-types.ts'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  js.configs.recommended,
  {
    files: ['**/*.{ts,tsx}'],
    extends: [
      tseslint.configs.strictTypeChecked,
      tseslint.configs.stylisticTypeChecked,
      jsxA11y.flatConfigs.strict,
      reactHooks.configs.flat['recommended-latest'],
    ],
    languageOptions: { parserOptions: { projectService: true } },
  },
  { files: ['**/*.{js,mjs}'], languageOptions: { globals: globals.node } },
  layer('src/lib/**', ['~/components/*', '~/features/*', '~/app/*'], 'lib stands alone.'),
  layer('src/components/**', ['~/features/*', '~/app/*'], 'Components know only lib.'),
  layer('src/features/**', ['~/features/*', '~/app/*'], 'A feature knows components and lib, no other feature.'),
  {
    // A feature's tests open the whole app, as its user does.
    files: ['src/**/*.test.tsx', 'src/testing/**'],
    rules: { 'no-restricted-imports': 'off' },
  },
)
