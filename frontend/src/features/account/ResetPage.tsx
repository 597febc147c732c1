import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { Page } from '~/components/Page'
import { useForm } from '~/lib/form'
import { ApiError } from '~/lib/http'
import { redirect, usePlace } from '~/lib/router'
import { useSession, useSessionState } from '~/lib/session'
import { resetPassword } from './api'
import { ForgottenPage } from './ForgottenPage'
import { newPasswordMistake } from './newPassword'
import { NewPasswordField } from './NewPasswordField'

export function ResetPage() {
  const token = usePlace().token
  return token === null || token === '' ? <ForgottenPage /> : <ResetForm key={token} token={token} />
}

function ResetForm({ token }: { token: string }) {
  const session = useSession()
  const { status } = useSessionState()
  const { failure, busy, formProps, field } = useForm({
    initial: { password: '' },
    check: ({ password }) => ({ password: newPasswordMistake(password) }),
    send: async ({ password }) => {
      const { email } = await resetPassword(token, password)
      // The server has ended every session, the one of this browser among them.
      if (status === 'signed-in') session.end('signed-out')
      redirect('/signin', { message: 'Your password is changed. Sign in with the new one.', email })
    },
  })

  if (failure instanceof ApiError && failure.code === 'token_invalid') {
    return <ForgottenPage lead="This link is no longer valid: it works once, for an hour. Let us send you a new one." />
  }
  return (
    <Page title="Choose a new password" lead="Saving it signs you out everywhere. Then sign in with the new one.">
      <form {...formProps}>
        {failure !== null && <Alert error={failure} />}
        <NewPasswordField {...field('password')} label="New password" />
        <Button type="submit" busy={busy}>
          {busy ? 'Saving…' : 'Save the password'}
        </Button>
      </form>
    </Page>
  )
}
