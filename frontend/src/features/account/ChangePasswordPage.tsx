import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { PasswordField } from '~/components/Field'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { useForm } from '~/lib/form'
import { navigate } from '~/lib/router'
import { useSession } from '~/lib/session'
import { changePassword } from './api'
import { newPasswordMistake } from './newPassword'
import { NewPasswordField } from './NewPasswordField'

export function ChangePasswordPage() {
  const session = useSession()
  const { failure, busy, formProps, field } = useForm({
    initial: { current: '', new: '' },
    check: (entered) => ({
      current: entered.current === '' ? 'Enter your current password.' : undefined,
      new: newPasswordMistake(entered.new),
    }),
    send: async (entered) => {
      await changePassword(session, entered)
      navigate('/profile', { message: 'Your password is changed. Other devices are signed out.' })
    },
    blame: ({ code }) => (code === 'credentials_invalid' ? { current: 'The current password is not right.' } : {}),
  })

  return (
    <Page title="Change your password" lead="Other devices are signed out, and we send you a mail.">
      <form {...formProps}>
        {failure !== null && <Alert error={failure} />}
        <PasswordField {...field('current')} label="Current password" autoComplete="current-password" />
        <NewPasswordField {...field('new')} label="New password" />
        <Button type="submit" busy={busy}>
          {busy ? 'Saving…' : 'Change password'}
        </Button>
      </form>
      <p className="aside">
        You do not know it? <Link to="/forgotten">Choose a new one by mail</Link>
      </p>
    </Page>
  )
}
