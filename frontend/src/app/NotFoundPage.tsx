import { Link } from '~/components/Link'
import { Page } from '~/components/Page'

export function NotFoundPage() {
  return (
    <Page title="There is no such page" lead="The address may be mistyped, or the page has moved.">
      <p className="actions">
        <Link className="button button-primary" to="/">
          Go to the front page
        </Link>
      </p>
    </Page>
  )
}
