import type { ReactNode } from 'react'
import { ChangePasswordPage } from '~/features/account/ChangePasswordPage'
import { ForgottenPage } from '~/features/account/ForgottenPage'
import { ResetPage } from '~/features/account/ResetPage'
import { SignInPage } from '~/features/account/SignInPage'
import { SignUpPage } from '~/features/account/SignUpPage'
import { VerifyPage } from '~/features/account/VerifyPage'
import { ProfilePage } from '~/features/profile/ProfilePage'
import { usePlace } from '~/lib/router'
import { FrontPage } from './FrontPage'
import { NotFoundPage } from './NotFoundPage'
import { SignedInOnly } from './SignedInOnly'

// All pages are one file on purpose. Pages fetched later would be missing for whoever
// loaded the site before a release and moves on after it.
const pages: Record<string, ReactNode> = {
  '/': <FrontPage />,
  '/signup': <SignUpPage />,
  '/verify': <VerifyPage />,
  '/signin': <SignInPage />,
  '/forgotten': <ForgottenPage />,
  '/reset': <ResetPage />,
  '/password': (
    <SignedInOnly>
      <ChangePasswordPage />
    </SignedInOnly>
  ),
  '/profile': (
    <SignedInOnly>
      <ProfilePage />
    </SignedInOnly>
  ),
}

export function Router() {
  const { path } = usePlace()
  return pages[path] ?? <NotFoundPage />
}
